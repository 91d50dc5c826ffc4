//! Where a database is, and why it cannot be reached: told to operators, and never with a password.

use std::{fmt, time::Duration};

use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use tokio::time::timeout;

use super::{Store, StoreError};

/// Where a database is, and the role that is logged in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A host and its port, or the path of a socket.
    address: String,
    database: String,
    role: String,
}

/// Why a database cannot be reached, and what helps.
#[derive(Debug)]
pub struct Unreached {
    place: Place,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// Nothing came back for so long.
    Silence(Duration),
    Failed(sqlx::Error),
}

impl Place {
    fn of(options: &PgConnectOptions) -> Self {
        let (host, port, role) = (options.get_host(), options.get_port(), options.get_username());
        let folder = options.get_socket().map(|folder| folder.display().to_string());
        let folder = folder.or_else(|| host.starts_with('/').then(|| host.to_owned()));
        Self {
            address: folder.map_or_else(|| format!("{host}:{port}"), |folder| format!("{folder}/.s.PGSQL.{port}")),
            // PostgreSQL's rule where none is named.
            database: options.get_database().unwrap_or(role).to_owned(),
            role: role.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, database, role } = self;
        write!(formatter, "database {database} at {address} as role {role}")
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(limit) => write!(formatter, "no answer came within {} s", limit.as_secs()),
            Self::Failed(sqlx::Error::Io(error)) => error.fmt(formatter),
            Self::Failed(sqlx::Error::Database(error)) => formatter.write_str(error.message()),
            Self::Failed(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for Unreached {}

impl fmt::Display for Unreached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; {}", self.found(), self.advice())
    }
}

impl Unreached {
    /// What was found.
    pub fn found(&self) -> String {
        format!("cannot reach the {}: {}", self.place, self.cause)
    }

    /// What helps, as a request.
    pub fn advice(&self) -> &'static str {
        match &self.cause {
            Cause::Failed(sqlx::Error::Database(error)) => match error.code().as_deref() {
                Some(code) if code.starts_with("28") => {
                    "see that role and password are right, and that pg_hba.conf lets this role in"
                }
                Some("3D000") => "create that database, or let DATABASE_URL name another",
                Some("53300") => "raise max_connections of PostgreSQL, or close other connections",
                _ => "look at the log of PostgreSQL",
            },
            Cause::Failed(sqlx::Error::Tls(_)) => "let sslmode and sslrootcert in DATABASE_URL fit the server",
            _ => "see that PostgreSQL runs there, and that DATABASE_URL names the right host and port",
        }
    }
}

impl Store {
    /// Where its database is.
    pub fn place(&self) -> Place {
        Place::of(&self.pool.connect_options())
    }

    /// Fails unless a new connection can be opened within a time, apart from the pools: those keep trying, and cannot say why
    /// that fails.
    pub async fn reach(&self, limit: Duration) -> Result<(), Unreached> {
        let options = self.pool.connect_options();
        let cause = match timeout(limit, options.connect()).await {
            Ok(Ok(connection)) => {
                // Whether the other side hears of it changes nothing.
                let _ = timeout(limit, connection.close()).await;
                return Ok(());
            }
            Ok(Err(error)) => Cause::Failed(error),
            Err(_) => Cause::Silence(limit),
        };
        Err(Unreached { place: Place::of(&options), cause })
    }

    /// What an error means, with the place of the database. An error that does not know its cause is looked into by a new
    /// connection, within a time.
    pub async fn why(&self, error: &StoreError, limit: Duration) -> String {
        if matches!(error, StoreError::Unavailable(_) | StoreError::Silent | StoreError::Busy)
            && let Err(unreached) = self.reach(limit).await
        {
            return unreached.to_string();
        }
        format!("{} ({})", error.with_causes(), self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> String {
        Place::of(&url.parse().unwrap()).to_string()
    }

    #[test]
    fn a_place_has_everything_but_the_password() {
        assert_eq!(
            place("postgresql://ro:secret@db.example:6543/people"),
            "database people at db.example:6543 as role ro"
        );
        assert_eq!(place("postgresql://ro:secret@db.example"), "database ro at db.example:5432 as role ro");
        let socket = "database people at /run/pg/.s.PGSQL.5432 as role ro";
        assert_eq!(place("postgresql://ro@localhost/people?host=/run/pg&password=secret"), socket);
    }

    #[test]
    fn a_cause_is_told_with_what_helps() {
        let told =
            |cause| Unreached { place: Place::of(&"postgresql://a:secret@b/c".parse().unwrap()), cause }.to_string();
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            told(Cause::Failed(refused.into())),
            "cannot reach the database c at b:5432 as role a: connection refused; see that PostgreSQL runs there, and that \
             DATABASE_URL names the right host and port"
        );
        assert!(
            told(Cause::Silence(Duration::from_secs(1))).contains(" as role a: no answer came within 1 s; see that")
        );
        assert!(
            told(Cause::Failed(sqlx::Error::Tls("no".into())))
                .ends_with("; let sslmode and sslrootcert in DATABASE_URL fit the server")
        );
    }
}
