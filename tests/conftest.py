"""What every test shares: the kit's fixtures, and a watcher of the laws that hold in every chat."""
