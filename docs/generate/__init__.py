"""What in docs/ is made of the code: `python -m docs.generate` renews it, and a test sees that it is current."""
