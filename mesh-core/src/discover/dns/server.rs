//! A name server on loopback that answers as a test says, over UDP and TCP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// How one question is answered.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// These records, all of this TTL.
    Records(Vec<RData>, u32),
    /// None, with or without the zone's SOA.
    Nothing {
        code: ResponseCode,
        soa: bool,
    },
    /// This code and nothing else.
    Code(ResponseCode),
    /// Over UDP only that it is too long, over TCP these.
    Truncated(Vec<RData>, u32),
    /// An alias for another name, whose records come along.
    Alias(&'static str, Vec<RData>),
    /// Bytes that are no answer.
    Garbage,
    Silence,
}

type Script = Arc<Mutex<HashMap<(String, RecordType), Reply>>>;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (address, script, asked) = (udp.local_addr().unwrap(), Script::default(), Arc::default());
        let answerer = Answerer { script: Arc::clone(&script), asked: Arc::clone(&asked) };
        let mut tasks = JoinSet::new();
        tasks.spawn(answerer.clone().datagrams(udp));
        tasks.spawn(answerer.streams(tcp));
        Self { address, script, asked, _tasks: tasks }
    }

    pub(super) fn say(&self, name: &str, kind: RecordType, reply: Reply) {
        self.script.lock().unwrap().insert((name.to_owned(), kind), reply);
    }

    /// What was asked so far, such as `udp A a.test`.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Answerer {
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answerer {
    async fn datagrams(self, udp: UdpSocket) {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, from)) = udp.recv_from(&mut buffer).await else { continue };
            if let Some(answer) = self.answer(&buffer[..length], "udp") {
                let _ = udp.send_to(&answer, from).await;
            }
        }
    }

    async fn streams(self, tcp: TcpListener) {
        loop {
            let Ok((mut stream, _)) = tcp.accept().await else { continue };
            let answerer = self.clone();
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    let Some(answer) = answerer.answer(&question, "tcp") else { continue };
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            });
        }
    }

    fn answer(&self, question: &[u8], transport: &str) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).unwrap();
        let query = question.queries[0].clone();
        let name = query.name.to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned();
        self.asked.lock().unwrap().push(format!("{transport} {} {name}", query.query_type));
        let key = (name, query.query_type);
        let reply = self.script.lock().unwrap().get(&key).cloned();
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.authoritative = true;
        answer.metadata.recursion_available = true;
        let records = |records: Vec<RData>, ttl| {
            let name = query.name.clone();
            records.into_iter().map(move |data| Record::from_rdata(name.clone(), ttl, data))
        };
        match reply.unwrap_or(Reply::Code(ResponseCode::Refused)) {
            Reply::Records(found, ttl) => _ = answer.add_answers(records(found, ttl)),
            Reply::Truncated(_, _) if transport == "udp" => answer.metadata.truncation = true,
            Reply::Truncated(found, ttl) => _ = answer.add_answers(records(found, ttl)),
            Reply::Alias(target, found) => {
                let target = Name::from_str(target).unwrap();
                answer.add_answers(records(vec![RData::CNAME(CNAME(target.clone()))], 30));
                answer.add_answers(found.into_iter().map(|data| Record::from_rdata(target.clone(), 30, data)));
            }
            Reply::Nothing { code, soa } => {
                answer.metadata.response_code = code;
                if soa {
                    let name = Name::from_str("test.").unwrap();
                    let data = RData::SOA(SOA::new(name.clone(), name.clone(), 1, 3600, 600, 86_400, 7));
                    answer.add_authority(Record::from_rdata(name, 7, data));
                }
            }
            Reply::Code(code) => answer.metadata.response_code = code,
            Reply::Garbage => return Some(b"no such message".to_vec()),
            Reply::Silence => return None,
        }
        answer.add_query(query);
        Some(answer.to_vec().unwrap())
    }
}

pub(super) fn a(text: &str) -> RData {
    RData::A(A(text.parse().unwrap()))
}

pub(super) fn aaaa(text: &str) -> RData {
    RData::AAAA(AAAA(text.parse().unwrap()))
}

pub(super) fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_str(target).unwrap()))
}
