"""Answers to nearly the same question: embedders, vector stores, and the guard between them."""
