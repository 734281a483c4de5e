"""The mathematics of `lora.py` and `model.py` again, faster. Tests hold it to them."""
