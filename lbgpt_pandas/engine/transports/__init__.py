"""Provider clients behind one port."""
