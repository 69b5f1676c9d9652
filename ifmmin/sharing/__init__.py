"""Trained models as folders of safetensors, here and on the Hugging Face Hub. No pickle is read or written."""
