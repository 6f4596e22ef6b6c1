//! A client as cheap as one can be: what it spends, the gateways beside it do not have.
//!
//! In: bodies. Out: nothing but that each was answered with 2xx. HTTP/1.1 on kept connections, blocking, a thread a connection, no buffer of its own on
//! the way out: what remains of a request is the kernel's copy. Refuses every other answer, since a refused body costs a gateway less than a taken one.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Longest wait for an answer: a gateway that is merely busy answers within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One kept connection.
pub struct Sender {
    address: SocketAddr,
    path: &'static str,
    stream: Option<BufReader<TcpStream>>,
}

impl Sender {
    /// A client that will connect with its first body.
    pub fn new(address: SocketAddr, path: &'static str) -> Sender {
        Sender { address, path, stream: None }
    }

    /// Sends a body and waits for its answer.
    ///
    /// # Errors
    /// No answer, or another than 2xx.
    pub fn post(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(self.address)?),
        };
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.address,
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body)?;
        let (status, closes) = answer(&mut stream).with_context(|| format!("POST {}", self.path))?;
        ensure!((200..300).contains(&status), "POST {}: status {status}", self.path);
        self.stream = (!closes).then_some(stream);
        Ok(())
    }
}

/// Sends all bodies over all connections; whoever is free takes the next one.
///
/// # Errors
/// The first that any of them met.
pub fn send_all(senders: &mut [Sender], bodies: &[Bytes]) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let works: Vec<_> = senders
            .iter_mut()
            .map(|sender| {
                let next = &next;
                scope.spawn(move || {
                    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        sender.post(body)?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        works.into_iter().try_for_each(|work| work.join().ok().context("a sender ended")?)
    })
}

/// Asks for a page, over a connection of its own.
///
/// # Errors
/// No answer, or another than 200.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = connect(address)?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, page) = text.split_once("\r\n\r\n").with_context(|| format!("GET {path}: no answer"))?;
    ensure!(head.split(' ').nth(1) == Some("200"), "GET {path}: {head}");
    Ok(page.to_owned())
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// The status of an answer, and whether the connection ends with it.
fn answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<(u16, bool)> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).context("no answer")?;
    let (mut length, mut closes) = (0, false);
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the answer ends in its head");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "connection" => closes = value.trim().eq_ignore_ascii_case("close"),
            "transfer-encoding" => anyhow::bail!("an answer in chunks"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, closes))
}
