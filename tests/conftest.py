"""What every test may use. The fixtures of one concern stand in the conftest beside its tests."""
