"""The candidates on shards: the pool of them, what each answers, and the fit over all. It knows no stage."""
