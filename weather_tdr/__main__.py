"""`python -m weather_tdr` is the console script `weather-tdr`."""

from weather_tdr.cli import main

if __name__ == "__main__":
    main()
