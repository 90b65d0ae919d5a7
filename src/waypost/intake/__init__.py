"""How mail gets in: listeners, and the one door behind them (acceptance)."""
