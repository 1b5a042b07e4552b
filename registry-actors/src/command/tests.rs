//! The form of commands does not change.

use grus_protocol::ids::Term;
use grus_protocol::message::TopicSettings;

use super::*;

fn samples() -> Vec<Command> {
    let drains = Command::DrainBroker(DrainBroker { broker: BrokerId(1), drained: true });
    let later = vec![enrols_with_numbers(), home_without_one(), drains];
    [first_samples(), samples_of_replicas(), samples_of_changes(), samples_of_caps(), later]
        .concat()
}

fn first_samples() -> Vec<Command> {
    let name = TopicName::try_from("orders").unwrap();
    vec![
        Command::CreateTopic(CreateTopic {
            name: name.clone(),
            id: TopicId(7),
            settings: settings(),
        }),
        Command::AlterTopic(alter(name.clone(), Some(1 << 30))),
        Command::DeleteTopic(DeleteTopic { name, id: TopicId(u64::MAX) }),
        Command::RegisterBroker(RegisterBroker {
            broker: BrokerId(1),
            host: "127.0.0.1".into(),
            port: 6086,
            shards: vec![(ShardId(0), Durability::Persisted)],
        }),
        Command::FoundRegistry(FoundRegistry { registry: 9 }),
        Command::EnrolBroker(EnrolBroker {
            broker: BrokerId(1),
            disk: 77,
            host: "mq".into(),
            port: 6086,
            shards: vec![(ShardId(0), Durability::Persisted)],
            shards_wanted: 2,
            memberships: Vec::new(),
            shards_below: 0,
        }),
        Command::MarkBroker(MarkBroker { broker: BrokerId(1), live: false }),
        Command::PlaceTopic(PlaceTopic {
            create: CreateTopic { name: topic(), id: TopicId(7), settings: settings() },
            shards: vec![ShardId(3)],
        }),
        Command::GrowTopic(GrowTopic { alter: alter(topic(), None), shards: vec![ShardId(3)] }),
        Command::AdoptTopics(AdoptTopics {
            broker: BrokerId(1),
            topics: vec![AdoptTopic {
                name: topic(),
                id: TopicId(7),
                settings: settings(),
                queues: vec![(QueueId(2), ShardId(3))],
                altered: TimestampMs(0),
                created: TimestampMs(0),
            }],
        }),
        Command::PlaceDeadLetters(PlaceDeadLetters {
            name: TopicName::system("DLQ", "g").unwrap(),
            id: TopicId(7),
            home: Some(ShardId(0)),
            shards: vec![ShardId(3)],
            home_replicas: 0,
            left_out: Vec::new(),
        }),
        Command::PlaceDeadLetters(PlaceDeadLetters {
            name: TopicName::system("DLQ", "h").unwrap(),
            id: TopicId(8),
            home: Some(ShardId(0)),
            shards: Vec::new(),
            home_replicas: 3,
            left_out: Vec::new(),
        }),
    ]
}

fn alter(name: TopicName, retention_bytes: Option<u64>) -> AlterTopic {
    AlterTopic {
        name,
        id: TopicId(0),
        queues: Some(8),
        retention_ms: None,
        retention_bytes,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    }
}

/// Those that came with shards of several members.
fn samples_of_replicas() -> Vec<Command> {
    vec![
        Command::LeadShards(LeadShards {
            broker: BrokerId(2),
            shards: vec![(ShardId(9), Term(8))],
            members: Vec::new(),
        }),
        member_enrols(Vec::new(), 0),
        Command::AdoptTopics(AdoptTopics {
            broker: BrokerId(1),
            topics: vec![AdoptTopic {
                name: topic(),
                id: TopicId(7),
                settings: settings(),
                queues: Vec::new(),
                altered: TimestampMs(9),
                created: TimestampMs(0),
            }],
        }),
    ]
}

/// A broker that is a member of a shard, as its list is at that entry.
fn member_enrols(wanted: Vec<BrokerId>, members_at: u64) -> Command {
    Command::EnrolBroker(EnrolBroker {
        broker: BrokerId(1),
        disk: 77,
        host: "mq".into(),
        port: 6086,
        shards: Vec::new(),
        shards_wanted: 2,
        memberships: vec![MembershipClaim {
            shard: ShardId(9),
            durability: Durability::Persisted,
            members: vec![BrokerId(1), BrokerId(2)],
            group: 5,
            wanted,
            members_at,
        }],
        shards_below: 0,
    })
}

/// A broker that says which numbers it has heard of.
fn enrols_with_numbers() -> Command {
    Command::EnrolBroker(EnrolBroker {
        broker: BrokerId(1),
        disk: 77,
        host: "mq".into(),
        port: 6086,
        shards: Vec::new(),
        shards_wanted: 2,
        memberships: Vec::new(),
        shards_below: 12,
    })
}

/// A new group's home that is not to be on a broker that is gone.
fn home_without_one() -> Command {
    Command::PlaceDeadLetters(PlaceDeadLetters {
        name: TopicName::system("DLQ", "h").unwrap(),
        id: TopicId(8),
        home: Some(ShardId(0)),
        shards: Vec::new(),
        home_replicas: 3,
        left_out: vec![BrokerId(4)],
    })
}

/// Those that came with members that change.
fn samples_of_changes() -> Vec<Command> {
    vec![
        Command::LeadShards(LeadShards {
            broker: BrokerId(2),
            shards: vec![(ShardId(9), Term(8))],
            members: vec![ToldMembers {
                shard: ShardId(9),
                members: vec![BrokerId(2), BrokerId(3)],
                at: 311,
            }],
        }),
        Command::ChangeReplicas(ChangeReplicas {
            shards: vec![ShardId(9)],
            topic: Some(topic()),
            add: Some(BrokerId(3)),
            remove: None,
        }),
        member_enrols(vec![BrokerId(3)], 7),
        Command::GrowReplicas(GrowReplicas {
            shards: vec![ShardId(9)],
            topic: Some(topic()),
            replicas: 3,
        }),
    ]
}

/// Those that came with caps by messages and topics that refuse.
fn samples_of_caps() -> Vec<Command> {
    let (retention_messages, when_full) = (5, WhenFull::Reject);
    let capped =
        TopicSettings { retention_messages, when_full, replicas: 1, ..TopicSettings::default() };
    let settings = StoredSettings::from(&capped);
    let (queues, retention_messages, when_full) = (None, Some(5), Some(when_full));
    vec![
        Command::CreateTopic(CreateTopic { name: topic(), id: TopicId(7), settings }),
        Command::AlterTopic(AlterTopic {
            queues,
            retention_messages,
            when_full,
            ..alter(topic(), None)
        }),
    ]
}

fn topic() -> TopicName {
    TopicName::try_from("t").unwrap()
}

fn settings() -> StoredSettings {
    StoredSettings::from(&TopicSettings { replicas: 1, ..TopicSettings::default() })
}

#[test]
fn commands_read_back_and_every_cut_is_refused() {
    for command in samples() {
        let (kind, bytes) = command.encode();
        assert!(Command::knows(kind));
        assert_eq!(Command::decode(kind, &bytes).unwrap(), command);
        for cut in 0..bytes.len() {
            assert!(Command::decode(kind, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(Command::decode(kind, &longer), Err(FormatError::Trailing(1))));
        let newer = [&[2], &bytes[1..]].concat();
        assert!(matches!(Command::decode(kind, &newer), Err(FormatError::Version(2))));
    }
    assert!(matches!(Command::decode(63, &[1]), Err(FormatError::Kind(63))));
    assert!(!Command::knows(63) && !Command::knows(79));
}

#[test]
fn the_format_does_not_change() {
    let golden: Vec<_> =
        samples().iter().map(|command| command.encode().1.escape_ascii().to_string()).collect();
    assert_eq!(
        golden,
        [
            "\\x01\\x83\\xa4name\\xa6orders\\xa2id\\x07\\xa8settings\\x85\\xa6queues\\x04\
             \\xaadurability\\x00\\xacretention_ms\\xce$\\x0c\\x84\\x00\
             \\xafretention_bytes\\x00\\xa4kind\\x00",
            "\\x01\\x85\\xa4name\\xa6orders\\xa2id\\x00\\xa6queues\\x08\
             \\xacretention_ms\\xc0\\xafretention_bytes\\xce@\\x00\\x00\\x00",
            "\\x01\\x82\\xa4name\\xa6orders\\xa2id\\xcf\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff",
            "\\x01\\x84\\xa6broker\\x01\\xa4host\\xa9127.0.0.1\\xa4port\\xcd\\x17\\xc6\
             \\xa6shards\\x91\\x92\\x00\\x00",
            "\\x01\\x81\\xa8registry\\t",
            "\\x01\\x86\\xa6broker\\x01\\xa4diskM\\xa4host\\xa2mq\\xa4port\\xcd\\x17\\xc6\
             \\xa6shards\\x91\\x92\\x00\\x00\\xadshards_wanted\\x02",
            "\\x01\\x82\\xa6broker\\x01\\xa4live\\xc2",
            "\\x01\\x82\\xa6create\\x83\\xa4name\\xa1t\\xa2id\\x07\\xa8settings\\x85\\xa6\
             queues\\x04\\xaadurability\\x00\\xacretention_ms\\xce$\\x0c\\x84\\x00\\xafre\
             tention_bytes\\x00\\xa4kind\\x00\\xa6shards\\x91\\x03",
            "\\x01\\x82\\xa5alter\\x85\\xa4name\\xa1t\\xa2id\\x00\\xa6queues\\x08\\xacret\
             ention_ms\\xc0\\xafretention_bytes\\xc0\\xa6shards\\x91\\x03",
            "\\x01\\x82\\xa6broker\\x01\\xa6topics\\x91\\x84\\xa4name\\xa1t\\xa2id\\x07\
             \\xa8settings\\x85\\xa6queues\\x04\\xaadurability\\x00\\xacretention_ms\\xce\
             $\\x0c\\x84\\x00\\xafretention_bytes\\x00\\xa4kind\\x00\\xa6queues\\x91\\x92\
             \\x02\\x03",
            "\\x01\\x84\\xa4name\\xa6%DLQ%g\\xa2id\\x07\\xa4home\\x00\\xa6shards\\x91\\x03",
            "\\x01\\x85\\xa4name\\xa6%DLQ%h\\xa2id\\x08\\xa4home\\x00\\xa6shards\\x90\
             \\xadhome_replicas\\x03",
            "\\x01\\x82\\xa6broker\\x02\\xa6shards\\x91\\x92\\t\\x08",
            "\\x01\\x87\\xa6broker\\x01\\xa4diskM\\xa4host\\xa2mq\\xa4port\\xcd\\x17\\xc6\
             \\xa6shards\\x90\\xadshards_wanted\\x02\\xabmemberships\\x91\\x84\\xa5shard\\t\
             \\xaadurability\\x00\\xa7members\\x92\\x01\\x02\\xa5group\\x05",
            "\\x01\\x82\\xa6broker\\x01\\xa6topics\\x91\\x85\\xa4name\\xa1t\\xa2id\\x07\
             \\xa8settings\\x85\\xa6queues\\x04\\xaadurability\\x00\\xacretention_ms\\xce\
             $\\x0c\\x84\\x00\\xafretention_bytes\\x00\\xa4kind\\x00\\xa6queues\\x90\
             \\xa7altered\\t",
            "\\x01\\x83\\xa6broker\\x02\\xa6shards\\x91\\x92\\t\\x08\\xa7members\\x91\\x83\
             \\xa5shard\\t\\xa7members\\x92\\x02\\x03\\xa2at\\xcd\\x017",
            "\\x01\\x84\\xa6shards\\x91\\t\\xa5topic\\xa1t\\xa3add\\x03\\xa6remove\\xc0",
            "\\x01\\x87\\xa6broker\\x01\\xa4diskM\\xa4host\\xa2mq\\xa4port\\xcd\\x17\\xc6\
             \\xa6shards\\x90\\xadshards_wanted\\x02\\xabmemberships\\x91\\x86\\xa5shard\\t\
             \\xaadurability\\x00\\xa7members\\x92\\x01\\x02\\xa5group\\x05\\xa6wanted\\x91\\x03\
             \\xaamembers_at\\x07",
            "\\x01\\x83\\xa6shards\\x91\\t\\xa5topic\\xa1t\\xa8replicas\\x03",
            "\\x01\\x83\\xa4name\\xa1t\\xa2id\\x07\\xa8settings\\x87\\xa6queues\\x04\
             \\xaadurability\\x00\\xacretention_ms\\xce$\\x0c\\x84\\x00\
             \\xafretention_bytes\\x00\\xa4kind\\x00\\xb2retention_messages\\x05\
             \\xa9when_full\\x01",
            "\\x01\\x87\\xa4name\\xa1t\\xa2id\\x00\\xa6queues\\xc0\\xacretention_ms\\xc0\
             \\xafretention_bytes\\xc0\\xb2retention_messages\\x05\\xa9when_full\\x01",
            "\\x01\\x87\\xa6broker\\x01\\xa4diskM\\xa4host\\xa2mq\\xa4port\\xcd\\x17\\xc6\
             \\xa6shards\\x90\\xadshards_wanted\\x02\\xacshards_below\\x0c",
            "\\x01\\x86\\xa4name\\xa6%DLQ%h\\xa2id\\x08\\xa4home\\x00\\xa6shards\\x90\
             \\xadhome_replicas\\x03\\xa8left_out\\x91\\x04",
            "\\x01\\x82\\xa6broker\\x01\\xa7drained\\xc3",
        ]
    );
}

#[test]
fn a_bad_name_in_the_log_is_unreadable_and_no_panic() {
    let (kind, bytes) = samples()[2].encode();
    let at = bytes.windows(6).position(|window| window == b"orders").unwrap();
    let mut bad = bytes.to_vec();
    bad[at] = b'/';
    assert!(matches!(Command::decode(kind, &bad), Err(FormatError::Malformed(_))));
}
