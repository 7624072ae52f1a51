//! Connections that talk until they are told to stop.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::netns::{Error, Netns};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// A connection that gets no answer for this long is broken. A segment that is lost is sent again after 0.2 s, 0.6 s, 1.4 s, 3 s, 6.2 s.
const STUCK: Duration = Duration::from_secs(20);
/// From an answer to the next word.
const PAUSE: Duration = Duration::from_secs(2);
/// Handshakes under way at a time.
const OPENING: usize = 128;

type Thread = JoinHandle<Result<(), Error>>;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server that sends back what it gets.
pub(crate) const ECHO: &str = "
import asyncio, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.data_received = transport.write
async def serve():
    server = await asyncio.get_running_loop().create_server(Echo, port=8080, backlog=4096)
    await server.serve_forever()
asyncio.run(serve())
";

/// What a connection says in a round: up to 400 bytes that nobody else says, and itself in no other round.
fn word(id: u32, round: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(id) << 32 | u64::from(round));
    let mut word = vec![0; random.usize(1..=400)];
    random.fill(&mut word);
    word
}

/// Says a word and hears it.
async fn say(stream: &mut TcpStream, id: u32, round: u32) -> Result<(), String> {
    let word = word(id, round);
    let mut back = vec![0; word.len()];
    let exchange = async {
        stream.write_all(&word).await?;
        stream.read_exact(&mut back).await
    };
    match timeout(STUCK, exchange).await {
        Err(_) => Err("no answer".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(_)) if back != word => Err("another word came back".to_owned()),
        Ok(Ok(_)) => Ok(()),
    }
}

async fn connect(source: IpAddr, to: SocketAddr) -> Result<TcpStream, String> {
    let socket = TcpSocket::new_v4().and_then(|socket| socket.bind((source, 0).into()).map(|()| socket));
    let socket = socket.map_err(|error| error.to_string())?;
    match timeout(STUCK, socket.connect(to)).await {
        Err(_) => Err("no connection".to_owned()),
        Ok(connected) => connected.map_err(|error| error.to_string()),
    }
}

/// How far one connection has come.
#[derive(Default)]
struct Conversation {
    end: OnceLock<SocketAddr>,
    said: AtomicU32,
    broken: OnceLock<String>,
}

/// Connections from a namespace that stay.
pub(crate) struct Crowd {
    conversations: Arc<[Conversation]>,
    stop: watch::Sender<()>,
    thread: Option<Thread>,
}

impl Crowd {
    /// Opens as many connections from these addresses in turn; returns when each has had its first answer.
    pub(crate) fn open(netns: &Netns, count: usize, sources: &[IpAddr], to: SocketAddr) -> Self {
        let conversations: Arc<[Conversation]> = (0..count).map(|_| Conversation::default()).collect();
        let (stop, stopped) = watch::channel(());
        let (all, sources) = (Arc::clone(&conversations), sources.to_vec());
        let work = async move {
            let opening = Arc::new(Semaphore::new(OPENING));
            let mut tasks = tokio::task::JoinSet::new();
            for (id, source) in (0..count).zip(sources.into_iter().cycle()) {
                let (all, opening, stopped) = (Arc::clone(&all), Arc::clone(&opening), stopped.clone());
                tasks.spawn(async move {
                    if let Err(error) = converse(&all[id], id as u32, source, to, &opening, stopped).await {
                        all[id].broken.set(error).unwrap();
                    }
                });
            }
            while tasks.join_next().await.is_some() {}
        };
        let thread = Some(netns.thread(move || runtime().block_on(work)));
        let crowd = Self { conversations, stop, thread };
        crowd.until_said(1);
        crowd
    }

    /// Waits until each that is not broken has said so many words more.
    pub(crate) fn until_said(&self, more: u32) {
        let before: Vec<u32> = self.said().collect();
        let deadline = Instant::now() + 3 * STUCK;
        let ready = |(conversation, (before, said)): (&Conversation, (&u32, u32))| {
            said >= before + more || conversation.broken.get().is_some()
        };
        while !self.conversations.iter().zip(before.iter().zip(self.said())).all(ready) {
            assert!(Instant::now() < deadline, "the clients themselves are stuck");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&self) -> impl Iterator<Item = u32> {
        self.conversations.iter().map(|conversation| conversation.said.load(Ordering::Relaxed))
    }

    /// The client's end of each, in the order of their numbers; those that never came to be have none.
    pub(crate) fn ends(&self) -> Vec<Option<SocketAddr>> {
        self.conversations.iter().map(|conversation| conversation.end.get().copied()).collect()
    }

    /// Numbers of the broken ones, and why.
    pub(crate) fn broken(&self) -> Vec<(usize, &str)> {
        let all = self.conversations.iter().enumerate();
        all.filter_map(|(id, conversation)| Some((id, conversation.broken.get()?.as_str()))).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn converse(
    conversation: &Conversation,
    id: u32,
    source: IpAddr,
    to: SocketAddr,
    opening: &Semaphore,
    mut stopped: watch::Receiver<()>,
) -> Result<(), String> {
    let permit = opening.acquire().await.map_err(|error| error.to_string())?;
    let mut stream = connect(source, to).await?;
    drop(permit);
    let end = stream.local_addr().map_err(|error| error.to_string())?;
    conversation.end.set(end).map_err(|_| "opened twice".to_owned())?;
    for round in 0.. {
        say(&mut stream, id, round).await?;
        conversation.said.store(round + 1, Ordering::Relaxed);
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = stopped.changed() => break,
        }
    }
    Ok(())
}

/// Connections that come, say a few words and go, one every 50 ms.
pub(crate) struct Passers {
    counts: Arc<[AtomicUsize; 3]>,
    stop: watch::Sender<()>,
    thread: Option<Thread>,
}

/// What became of passers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Had all their answers.
    pub(crate) served: usize,
    /// Could not open a connection.
    pub(crate) refused: usize,
    /// Opened one that broke.
    pub(crate) broken: usize,
}

impl Passers {
    pub(crate) fn start(netns: &Netns, source: IpAddr, to: SocketAddr) -> Self {
        let counts: Arc<[AtomicUsize; 3]> = Arc::default();
        let (stop, mut stopped) = watch::channel(());
        let counted = Arc::clone(&counts);
        let work = async move {
            let mut tasks = tokio::task::JoinSet::new();
            for id in 0.. {
                let counts = Arc::clone(&counted);
                tasks.spawn(async move {
                    let outcome = pass(id, source, to).await;
                    counts[outcome].fetch_add(1, Ordering::Relaxed);
                });
                tokio::select! {
                    () = sleep(Duration::from_millis(50)) => {}
                    _ = stopped.changed() => break,
                }
            }
            while tasks.join_next().await.is_some() {}
        };
        Self { counts, stop, thread: Some(netns.thread(move || runtime().block_on(work))) }
    }

    /// Lets those under way end and tells what became of all.
    pub(crate) fn stop(mut self) -> Passed {
        self.stop.send(()).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
        let [served, refused, broken] = [0, 1, 2].map(|of: usize| self.counts[of].load(Ordering::Relaxed));
        Passed { served, refused, broken }
    }
}

/// Which of the three it is that becomes of one.
async fn pass(id: u32, source: IpAddr, to: SocketAddr) -> usize {
    let Ok(mut stream) = connect(source, to).await else { return 1 };
    for round in 0..3 {
        if say(&mut stream, u32::MAX - id, round).await.is_err() {
            return 2;
        }
        sleep(Duration::from_millis(30)).await;
    }
    0
}
