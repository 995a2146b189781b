"""Distillation Workbench: can a small student replace a large teacher, what does it save, where does it fail?"""
