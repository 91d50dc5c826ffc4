//! Signatures of tokens, checked by ring, which TLS uses already: no second cryptography is compiled for them. Nothing here
//! signs, and keys with a shared secret check nothing. RSA keys have 2048 to 8192 bits.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{Error as BadSignature, Verifier},
};
use ring::signature as ring;

/// Tells the token library, for the life of the process, to check signatures here.
pub(super) fn install() {
    // A second time finds the same one installed.
    let _ = PROVIDER.install_default();
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(SignatureCheck::new(*algorithm, key)?)),
    // Only making keys and thumbprints needs these.
    key_utils: KeyUtils::new_unimplemented(),
};

/// A key and the only algorithm that it is used with.
struct SignatureCheck {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl SignatureCheck {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        if key.family() != algorithm.family() || algorithm.family() == AlgorithmFamily::Hmac {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Self { algorithm, key: key.clone() })
    }

    fn holds(&self, message: &[u8], signature: &[u8]) -> Option<()> {
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                ring::RsaPublicKeyComponents { n, e }.verify(rsa(self.algorithm)?, message, signature).ok()
            }
            DecodingKeyKind::SecretOrDer(point) => {
                ring::UnparsedPublicKey::new(curve(self.algorithm)?, point).verify(message, signature).ok()
            }
        }
    }
}

impl Verifier<Vec<u8>> for SignatureCheck {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), BadSignature> {
        self.holds(message, signature).ok_or_else(BadSignature::new)
    }
}

impl JwtVerifier for SignatureCheck {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static ring::RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &ring::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &ring::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &ring::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &ring::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &ring::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &ring::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn ring::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &ring::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ring::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ring::ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{crypto::verify, jwk::Jwk};
    use serde::Deserialize;

    use super::*;

    /// A signature of `header.claims` by another implementation (OpenSSL, by Python's `cryptography`).
    #[derive(Deserialize)]
    struct Signed {
        algorithm: Algorithm,
        key: Jwk,
        signature: String,
    }

    impl Signed {
        fn holds(&self, message: &str, key: &Jwk, algorithm: Algorithm) -> bool {
            let key = DecodingKey::from_jwk(key).unwrap();
            verify(&self.signature, message.as_bytes(), &key, algorithm).unwrap_or(false)
        }
    }

    #[test]
    fn signatures_of_every_algorithm_are_checked() {
        install();
        let all: Vec<Signed> = serde_json::from_str(include_str!("signatures.json")).unwrap();
        assert_eq!(all.len(), super::super::token::ALGORITHMS.len());
        for signed in &all {
            assert!(super::super::token::ALGORITHMS.contains(&signed.algorithm));
            for other in &all {
                let is_itself = std::ptr::eq(signed, other);
                let holds = signed.holds("header.claims", &other.key, other.algorithm);
                assert_eq!(holds, is_itself, "{:?} taken for {:?}", signed.algorithm, other.algorithm);
            }
            assert!(!signed.holds("header.claim", &signed.key, signed.algorithm), "{:?}", signed.algorithm);
            assert!(!signed.holds("header.claims", &signed.key, Algorithm::HS256), "a public key is no secret");
        }
    }
}
