"""One sweep after another: the sweeper of a target, its guards and its pace, and the scheduler."""
