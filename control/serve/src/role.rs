//! Who may do what.
//!
//! In: the name in a client certificate, or a bearer token. Out: a [`Caller`] with one role, or why not. Tokens are kept as their SHA-256: whoever reads
//! the file cannot call. Refuses what has neither, and what no grant names.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but keys.
    Viewer,
    /// Reads, and approves.
    Approver,
    /// All of it.
    Admin,
    /// Sends reports and is given plans; reads nothing else.
    Embedder,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Reading.
    Read,
    /// Approving.
    Approve,
    /// Changing what the control host works with.
    Administer,
    /// Sending reports, being given plans.
    Embed,
}

impl Role {
    /// Its word in configurations and logs.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Approver => "approver",
            Role::Admin => "admin",
            Role::Embedder => "embedder",
        }
    }

    /// May it?
    pub fn may(self, right: Right) -> bool {
        match self {
            Role::Admin => true,
            Role::Approver => matches!(right, Right::Read | Right::Approve),
            Role::Viewer => right == Right::Read,
            Role::Embedder => right == Right::Embed,
        }
    }
}

/// Whoever calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name in the certificate, or of the token.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Ids of nodes that it may speak for; empty: any.
    pub nodes: Vec<String>,
}

impl Caller {
    /// May it speak for this node? A pattern ends in `*` or is the id itself.
    pub fn is_node(&self, id: &str) -> bool {
        let is_it = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => id.starts_with(start),
            None => pattern == id,
        };
        self.nodes.is_empty() || self.nodes.iter().any(is_it)
    }

    /// The same, in words.
    ///
    /// # Errors
    /// It may not.
    pub fn speaks_for(&self, node: &str) -> Result<(), Denied> {
        if self.is_node(node) {
            return Ok(());
        }
        Err(Denied::Forbidden(format!("node: {node:?} is not of {:?}", self.name)))
    }
}

/// One line of who may do what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its name in logs.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Name in a client certificate: a subject alternative name (URI, DNS or mail), or else the common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// SHA-256 of a bearer token, in hex: `printf %s "$TOKEN" | sha256sum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// Ids of nodes that an embedder may speak for (`gateway-*`); any when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Access {
    grants: Vec<Grant>,
    /// Whoever comes over plain text from loopback, without a grant that fits, is an admin.
    trusts_loopback: bool,
}

/// How a request came.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Names in the certificate that the other side has shown.
    pub certificate: Vec<String>,
    /// The bearer token.
    pub token: Option<String>,
    /// Over plain text: then from loopback.
    pub is_plain: bool,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody knows who it is.
    Unknown(String),
    /// It may not.
    Forbidden(String),
}

impl Access {
    /// From the lines of a configuration. Without any, plain text from loopback may do everything, and nobody else anything.
    ///
    /// # Errors
    /// A line that grants nothing, with its name.
    pub fn new(grants: Vec<Grant>) -> Result<Access, String> {
        for (index, grant) in grants.iter().enumerate() {
            let field = |name: &str| format!("access[{index}].{name} (of {:?})", grant.name);
            if grant.certificate.is_none() && grant.token_sha256.is_none() {
                return Err(format!(
                    "{}: missing; allowed: certificate, token_sha256, or both",
                    field("certificate")
                ));
            }
            if let Some(token) = &grant.token_sha256
                && (token.len() != 64 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()))
            {
                // Somebody may have put the token itself there: it is not repeated.
                return Err(format!(
                    "{}: {} bytes; allowed: 64 hex digits",
                    field("token_sha256"),
                    token.len()
                ));
            }
            if grant.certificate.as_ref().is_some_and(String::is_empty) {
                return Err(format!(
                    "{}: empty; allowed: a name in a client certificate",
                    field("certificate")
                ));
            }
            if !grant.nodes.is_empty() && grant.role != Role::Embedder {
                return Err(format!(
                    "{}: set for role {}; allowed: for embedder",
                    field("nodes"),
                    grant.role.name()
                ));
            }
        }
        Ok(Access { trusts_loopback: grants.is_empty(), grants })
    }

    /// Who is it?
    ///
    /// # Errors
    /// Nobody that is named.
    pub fn caller(&self, credentials: &Credentials) -> Result<Caller, Denied> {
        let token = credentials.token.as_ref().map(|token| hex(&Sha256::digest(token.as_bytes())));
        let fits = |grant: &&Grant| {
            let by_token =
                token.is_some() && grant.token_sha256.as_ref().map(|it| it.to_ascii_lowercase()) == token;
            let by_name =
                grant.certificate.as_ref().is_some_and(|name| credentials.certificate.contains(name));
            by_token || by_name
        };
        if let Some(grant) = self.grants.iter().find(fits) {
            return Ok(Caller { name: grant.name.clone(), role: grant.role, nodes: grant.nodes.clone() });
        }
        if self.trusts_loopback && credentials.is_plain && credentials.token.is_none() {
            return Ok(Caller { name: "loopback".to_owned(), role: Role::Admin, nodes: Vec::new() });
        }
        Err(Denied::Unknown(match (&credentials.token, credentials.certificate.first()) {
            (Some(_), _) => "the bearer token is of nobody that access names".to_owned(),
            (None, Some(name)) => format!("certificate: {name:?} is nobody that access names"),
            (None, None) => "neither a client certificate nor a bearer token".to_owned(),
        }))
    }

    /// Who is it, and may it do this?
    ///
    /// # Errors
    /// Nobody that is named, or somebody who may not.
    pub fn allow(&self, credentials: &Credentials, right: Right) -> Result<Caller, Denied> {
        let caller = self.caller(credentials)?;
        if caller.role.may(right) {
            return Ok(caller);
        }
        let allowed: Vec<&str> = [Role::Viewer, Role::Approver, Role::Admin, Role::Embedder]
            .into_iter()
            .filter(|role| role.may(right))
            .map(Role::name)
            .collect();
        Err(Denied::Forbidden(format!(
            "role: {} of {:?}; allowed: {}",
            caller.role.name(),
            caller.name,
            allowed.join(", ")
        )))
    }
}

/// Bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str, role: Role, certificate: Option<&str>, token: Option<&str>) -> Grant {
        Grant {
            name: name.to_owned(),
            role,
            certificate: certificate.map(str::to_owned),
            token_sha256: token.map(|token| hex(&Sha256::digest(token.as_bytes()))),
            nodes: Vec::new(),
        }
    }

    #[test]
    fn each_role_may_what_its_name_says() {
        let may = |role: Role| {
            [Right::Read, Right::Approve, Right::Administer, Right::Embed].map(|right| role.may(right))
        };
        assert_eq!(may(Role::Viewer), [true, false, false, false]);
        assert_eq!(may(Role::Approver), [true, true, false, false]);
        assert_eq!(may(Role::Admin), [true, true, true, true]);
        assert_eq!(may(Role::Embedder), [false, false, false, true]);
    }

    #[test]
    fn a_caller_is_who_a_certificate_or_a_token_says() {
        let access = Access::new(vec![
            grant("gateways", Role::Embedder, Some("spiffe://mesh/gateway"), None),
            grant("on call", Role::Approver, None, Some("s3cret")),
        ])
        .unwrap();
        let by = |certificate: &[&str], token: Option<&str>| Credentials {
            certificate: certificate.iter().map(|name| (*name).to_owned()).collect(),
            token: token.map(str::to_owned),
            is_plain: true,
        };
        let name = |credentials: &Credentials| access.caller(credentials).map(|caller| caller.name);
        assert_eq!(name(&by(&["gateway", "spiffe://mesh/gateway"], None)).unwrap(), "gateways");
        assert_eq!(name(&by(&[], Some("s3cret"))).unwrap(), "on call");
        assert!(
            matches!(name(&by(&[], Some("other"))), Err(Denied::Unknown(why)) if why.contains("bearer token"))
        );
        assert!(matches!(name(&by(&["x"], None)), Err(Denied::Unknown(why)) if why.contains("\"x\"")));
        assert!(name(&by(&[], None)).is_err(), "once somebody is named, loopback is nobody");
        let denied = access.allow(&by(&[], Some("s3cret")), Right::Embed).unwrap_err();
        assert_eq!(
            denied,
            Denied::Forbidden("role: approver of \"on call\"; allowed: admin, embedder".to_owned())
        );
    }

    #[test]
    fn loopback_is_trusted_only_where_nobody_is_named() {
        let access = Access::new(Vec::new()).unwrap();
        let plain = Credentials { is_plain: true, ..Credentials::default() };
        assert_eq!(access.caller(&plain).unwrap().role, Role::Admin);
        assert!(access.caller(&Credentials::default()).is_err(), "over TLS somebody has to be named");
        let token = Credentials { token: Some("x".to_owned()), ..plain };
        assert!(access.caller(&token).is_err(), "a token that is of nobody is an error, not nothing");
    }

    #[test]
    fn a_grant_that_grants_nothing_is_refused() {
        let said = |grant: Grant| Access::new(vec![grant]).unwrap_err();
        assert!(
            said(grant("a", Role::Viewer, None, None))
                .starts_with("access[0].certificate (of \"a\"): missing")
        );
        let short = Grant { token_sha256: Some("abc".to_owned()), ..grant("a", Role::Viewer, None, None) };
        assert!(said(short).contains("64 hex digits"));
        let nodes = Grant { nodes: vec!["x".to_owned()], ..grant("a", Role::Viewer, Some("b"), None) };
        assert!(said(nodes).contains("allowed: for embedder"));
    }

    #[test]
    fn an_embedder_speaks_for_its_own_nodes() {
        let caller = |nodes: &[&str]| Caller {
            name: "a".to_owned(),
            role: Role::Embedder,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        };
        assert!(caller(&[]).is_node("anything"));
        assert!(caller(&["gateway-*", "edge"]).is_node("gateway-7"));
        assert!(caller(&["gateway-*", "edge"]).is_node("edge"));
        assert!(!caller(&["gateway-*", "edge"]).is_node("edge-1"));
    }
}
