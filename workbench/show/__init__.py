"""Pictures and panels: figures drawn from tables, and widgets that draw the same figures as one turns a knob."""
