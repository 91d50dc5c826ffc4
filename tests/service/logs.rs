//! Logs, at their most talkative, carry nothing personal and no secrets.

use std::fs::{self, File};

use rapport::{domain::Kind, rpc::pb};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{act, client_of, connection, database, day, rank, ready, try_record},
    program::{Running, folder, program},
};

/// Words that stand in requests and nowhere else.
const PERSONAL: [&str; 6] = ["zora-1f", "yann-2e", "quilting-3d", "letter-4c", "oslo-5b", "goal-6a"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_and_no_secret_is_logged() {
    let url = database(true).await;
    // The database refuses one interaction, as a defect would, and shows its row in what the driver knows of it.
    let mut connected = PgConnection::connect(&url).await.unwrap();
    let refuse = "ALTER TABLE ledger ADD CONSTRAINT refused CHECK (interaction_id <> 'letter-4c-refused')";
    sqlx::raw_sql(refuse).execute(&mut connected).await.unwrap();
    let place = folder();
    let log = place.path().join("log");
    let mut command = program(&["serve", "--listen", "127.0.0.1:0"]);
    command
        .env("DATABASE_URL", format!("{url}&password=secret-70"))
        .env("RAPPORT_LOG", "rapport=trace,sqlx=trace,tonic=trace");
    command.stderr(File::create(&log).unwrap());
    let (server, address) = Running::serve(command);
    ready(address).await;
    let mut client = client_of(address, "one");
    let [person, peer, topic, id, channel, goal] = PERSONAL.map(str::to_owned);
    let help = pb::Interaction {
        interaction_id: id.clone(),
        topics: vec![topic.clone()],
        channel,
        goal,
        ..act(Kind::Help, &peer, &person, day(0))
    };
    assert!(try_record(&mut client, help.clone()).await.is_ok());
    assert!(try_record(&mut client, pb::Interaction { unprompted: true, ..help.clone() }).await.is_err());
    let refused = pb::Interaction { interaction_id: format!("{id}-refused"), ..help.clone() };
    assert_eq!(try_record(&mut client, refused).await.unwrap_err().code(), tonic::Code::Internal);
    assert!(try_record(&mut client, pb::Interaction { recipients: vec![peer.clone()], ..help }).await.is_err());
    assert_eq!(rank(&mut client, &person, day(1)).await.len(), 1);
    assert!(!connection(&mut client, &person, &peer, day(1)).await.reasons.is_empty());
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("a batch was not recorded") && said.contains("INSERT INTO ledger"), "{said}");
    for word in PERSONAL.into_iter().chain(["secret-70"]) {
        assert!(!said.contains(word), "{word} is in the log: {said}");
    }
}
