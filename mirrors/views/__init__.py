"""Floor 3: one module a page. Parse, call one operation, answer."""
