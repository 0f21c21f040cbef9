"""What a task costs, counted and not timed: a change that makes one dearer by more than a tenth fails here."""
