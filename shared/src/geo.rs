//! Places on Earth and the distance between them.

use serde::{Deserialize, Serialize};

/// Mean Earth radius, km (IUGG).
const EARTH_RADIUS_KM: f64 = 6371.0;

/// Degrees north and east.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// -90 to 90.
    pub latitude: f64,
    /// -180 to 180.
    pub longitude: f64,
}

impl Place {
    /// Great-circle distance in km (haversine).
    #[must_use]
    pub fn distance_km(self, other: Self) -> f64 {
        let (lat_a, lat_b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_lat = (lat_b - lat_a) / 2.0;
        let half_lon = (other.longitude - self.longitude).to_radians() / 2.0;
        let h = half_lat.sin().powi(2) + lat_a.cos() * lat_b.cos() * half_lon.sin().powi(2);
        2.0 * EARTH_RADIUS_KM * h.sqrt().clamp(0.0, 1.0).asin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        let berlin = Place { latitude: 52.52, longitude: 13.405 };
        let tokyo = Place { latitude: 35.68, longitude: 139.69 };
        assert!((berlin.distance_km(tokyo) - 8918.0).abs() < 20.0);
        assert!(berlin.distance_km(berlin).abs() < 1e-9);
        let west = Place { latitude: 0.0, longitude: -180.0 };
        let east = Place { latitude: 0.0, longitude: 180.0 };
        assert!(west.distance_km(east) < 1e-6);
    }
}
