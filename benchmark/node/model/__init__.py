"""A model's files, weights, tokenizer and prompts."""
