"""Small measurements behind single decisions; each module runs by itself."""
