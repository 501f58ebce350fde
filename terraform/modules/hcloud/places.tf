# Where the locations are, to a tenth of a degree: the edge places participants by distance.

locals {
  places = {
    ash  = { latitude = 39.0, longitude = -77.5 }
    fsn1 = { latitude = 50.5, longitude = 12.4 }
    hel1 = { latitude = 60.2, longitude = 24.9 }
    hil  = { latitude = 45.5, longitude = -123.0 }
    nbg1 = { latitude = 49.5, longitude = 11.1 }
    sin  = { latitude = 1.3, longitude = 103.8 }
  }
}
