"""What tests/reliability/fuzz.py is made of: the kit of real files, the ways to damage them, and who reads them."""
