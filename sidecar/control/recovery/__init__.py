"""Recovery's shell: what `machines/recovery/recovery.py` decides is looked for, done and proved here."""
