"""Distillation Workbench: can a small student replace a large teacher, what does it save, where does it fail?"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would send Microsoft how it is used; read at import
