"""What a finished command tells a person, as text: pure, a module for each thing that is told."""
