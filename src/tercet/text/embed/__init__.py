"""Texts to vectors: the embedder protocol, MiniLM on ONNX Runtime, and whatever the user brings."""
