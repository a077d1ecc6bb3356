"""Groups that are led by their rows: a model beside `simulation.model`, for the same explorer."""
