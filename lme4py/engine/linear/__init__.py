"""Linear models: scaling, criterion, start, solve."""
