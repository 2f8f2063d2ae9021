"""How a Python function runs here: its Python, its code, its execution environment, what it may see."""
