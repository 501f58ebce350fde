# Where the regions are, to a tenth of a degree: the edge places participants by distance.

locals {
  places = {
    ams3 = { latitude = 52.4, longitude = 4.9 }
    atl1 = { latitude = 33.7, longitude = -84.4 }
    blr1 = { latitude = 13.0, longitude = 77.6 }
    fra1 = { latitude = 50.1, longitude = 8.7 }
    lon1 = { latitude = 51.5, longitude = -0.1 }
    nyc1 = { latitude = 40.7, longitude = -74.0 }
    nyc2 = { latitude = 40.7, longitude = -74.0 }
    nyc3 = { latitude = 40.7, longitude = -74.0 }
    sfo2 = { latitude = 37.8, longitude = -122.4 }
    sfo3 = { latitude = 37.8, longitude = -122.4 }
    sgp1 = { latitude = 1.3, longitude = 103.8 }
    syd1 = { latitude = -33.9, longitude = 151.2 }
    tor1 = { latitude = 43.7, longitude = -79.4 }
  }
}
