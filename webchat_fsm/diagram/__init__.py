"""Pictures and documents of the lifecycle, all of them made from the one table: lifecycle, graph, renderer, file."""
