"""The Hugging Face Hub: fetch, verify and cache models and datasets."""
