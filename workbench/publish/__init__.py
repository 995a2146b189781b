"""What leaves the house: report pages, ONNX files, and a folder that serves a student without PyTorch."""
