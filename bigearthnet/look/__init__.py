"""Show patches and quantities to people: pictures, sheets and what pages are made of."""
