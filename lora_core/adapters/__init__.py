"""An adapter as files in PEFT's format, out and in."""
