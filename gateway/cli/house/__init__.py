"""What commands ask of the house that runs beside them."""
