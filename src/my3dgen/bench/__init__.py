"""How fast is it, and how near to what the machine can do? One module a question."""
