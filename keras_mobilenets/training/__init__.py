"""The recipe at work: optimizer, schedule, batch norm, averages, train, evaluate."""
