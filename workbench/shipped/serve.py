"""Serve this student on port 8000: curl -d '["lights off"]' localhost:8000. Needs onnxruntime, tokenizers, numpy."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

here = Path(__file__).parent
names = json.loads((here / "config.json").read_text(encoding="utf-8"))["id2label"]
tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))
session = onnxruntime.InferenceSession(here / "model_int8.onnx")


def classify(texts: list[str]) -> list[dict]:
    """The label of each text and its probability."""
    rows = tokenizer.encode_batch(texts)
    ids, mask = np.array([row.ids for row in rows]), np.array([row.attention_mask for row in rows])
    logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    scores = np.exp(logits - logits.max(1, keepdims=True))
    return [{"label": names[str(s.argmax())], "score": float(s.max() / s.sum())} for s in scores]


class Handler(BaseHTTPRequestHandler):
    """A JSON list of texts in, a JSON list of answers out."""

    def do_POST(self) -> None:
        """Answer, or say what was wrong."""
        try:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = 200, classify([str(text) for text in texts])
        except Exception as error:  # a server goes on
            status, answer = 400, {"error": f"send a JSON list of one text or more ({type(error).__name__})"}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8000), Handler).serve_forever()
