"""Evaluation: real features and encodings, made-up rows, and a stand-in for the model whose quality is known
beforehand."""
