"""How good policies and worlds are: returns, fidelity, off-policy evaluation, the report."""
