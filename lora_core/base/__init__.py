"""The frozen model: its checkpoint, GPT-2's names for its tensors, its tokenizer."""
