//! The two algorithms that tokens are signed with, where jsonwebtoken has no backend of its own choice: its pure Rust one
//! brings RSA and two more curves, a tenth of the Worker. **Any other algorithm is refused.**

use ed25519_dalek::ed25519::signature::Error as SignatureError;
use ed25519_dalek::{SECRET_KEY_LENGTH, Signature, Signer, SigningKey, Verifier, VerifyingKey};
use hmac::{Hmac, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use sha2::Sha256;

use super::ED25519_PKCS8_HEADER;

/// HMAC with SHA-256 and Ed25519.
pub(super) static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // What it holds is for JWKs of jsonwebtoken's: ours are not of them.
    key_utils: KeyUtils::new_unimplemented(),
};

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256::new(key.as_bytes())?)),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let seed = key.as_bytes().strip_prefix(&ED25519_PKCS8_HEADER);
            let seed = seed.and_then(|seed| <&[u8; SECRET_KEY_LENGTH]>::try_from(seed).ok());
            let seed = seed.ok_or_else(|| new_error(ErrorKind::InvalidEddsaKey))?;
            Ok(Box::new(EdDsaSigner(SigningKey::from_bytes(seed))))
        }
        _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256::new(key.try_get_as_bytes()?)?)),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let key = VerifyingKey::try_from(key.try_get_as_bytes()?);
            Ok(Box::new(EdDsaVerifier(key.map_err(|_| new_error(ErrorKind::InvalidEddsaKey))?)))
        }
        _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
    }
}

/// RFC 7518 section 3.2.
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(secret: &[u8]) -> Result<Self, Error> {
        Hmac::new_from_slice(secret).map(Self).map_err(|_| new_error(ErrorKind::InvalidKeyFormat))
    }

    fn of(&self, message: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(message)
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.of(message).finalize().into_bytes().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        // In constant time.
        self.of(message).verify_slice(signature).map_err(SignatureError::from_source)
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// RFC 8037 section 3.1.
struct EdDsaSigner(SigningKey);

impl Signer<Vec<u8>> for EdDsaSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.try_sign(message)?.to_vec())
    }
}

impl JwtSigner for EdDsaSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

/// The same, of a public key.
struct EdDsaVerifier(VerifyingKey);

impl Verifier<Vec<u8>> for EdDsaVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        self.0.verify_strict(message, &Signature::from_slice(signature)?)
    }
}

impl JwtVerifier for EdDsaVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

/// Held against the backend of native builds, which is another's work.
#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::crypto;

    use super::*;

    const MESSAGE: &[u8] = b"header.claims";
    /// RFC 8032 section 7.1, test 1.
    const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn keys() -> [(Algorithm, EncodingKey, DecodingKey); 2] {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let der = [ED25519_PKCS8_HEADER.as_slice(), &bytes(SEED)].concat();
        [
            (Algorithm::HS256, EncodingKey::from_secret(b"secret"), DecodingKey::from_secret(b"secret")),
            (Algorithm::EdDSA, EncodingKey::from_ed_der(&der), DecodingKey::from_ed_der(&bytes(PUBLIC))),
        ]
    }

    #[test]
    fn it_signs_what_the_other_backend_signs_and_takes_nothing_else() {
        for (algorithm, private, public) in keys() {
            let signature = (PROVIDER.signer_factory)(&algorithm, &private).unwrap().sign(MESSAGE);
            assert_eq!(URL_SAFE_NO_PAD.encode(&signature), crypto::sign(MESSAGE, &private, algorithm).unwrap());
            let verifier = (PROVIDER.verifier_factory)(&algorithm, &public).unwrap();
            assert!(verifier.verify(MESSAGE, &signature).is_ok());
            assert!(verifier.verify(b"header.other", &signature).is_err());
            for at in 0..signature.len() {
                let mut forged = signature.clone();
                forged[at] ^= 1;
                assert!(verifier.verify(MESSAGE, &forged).is_err(), "{algorithm:?}: byte {at}");
            }
            for wrong in [&signature[1..], &[], &[0; 32], &[0; 64]] {
                assert!(verifier.verify(MESSAGE, &wrong.to_vec()).is_err());
            }
        }
    }

    #[test]
    fn other_algorithms_and_keys_of_the_other_kind_are_refused() {
        let [(hs256, secret, shared), (ed, private, public)] = keys();
        for (algorithm, private, public) in [
            (hs256, &private, &public),
            (ed, &secret, &shared),
            (Algorithm::HS512, &secret, &shared),
            (Algorithm::ES256, &private, &public),
        ] {
            assert!(signer(&algorithm, private).is_err() && verifier(&algorithm, public).is_err(), "{algorithm:?}");
        }
        for wrong in [&[][..], &[7; 31], &[7; 33]] {
            assert!(verifier(&ed, &DecodingKey::from_ed_der(wrong)).is_err());
            assert!(signer(&ed, &EncodingKey::from_ed_der(wrong)).is_err());
        }
    }
}
