//! A server that plays Prometheus and misbehaves on demand.
//!
//! In: what it shall do. Out: its URL. It understands requests just well enough: one a connection, the path, two headers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One value at every minute of the span that the tests ask for.
pub const MATRIX: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"route":"/"},"values":[[1700000000,"1"],[1700000060,"2"]]}]}}"#;
/// No series.
pub const EMPTY: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
/// What the simplest question is answered with.
pub const GREETING: &str = r#"{"status":"success","data":{"resultType":"scalar","result":[1700000000,"1"]}}"#;

/// What a guarded server wants to see.
pub const TOKEN: &str = "s3cret-t0ken";

/// What a server does.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Answers every range query with this.
    Say(u16, &'static str),
    /// Answers only after this time.
    Wait(Duration),
    /// Refuses every second range query.
    Half,
    /// Ends the connection in the middle of an answer.
    HangUp,
    /// Nobody listens.
    Down,
    /// Answers the greeting with an error too.
    Ill,
    /// Answers those who carry [`TOKEN`] only.
    Guarded,
    /// Answers everything with these bytes.
    Bytes(&'static [u8]),
}

/// Starts a server on a port of the system's choice; it ends with the test's process.
pub fn serve(does: Does) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    if matches!(does, Does::Down) {
        return url;
    }
    std::thread::spawn(move || {
        let count = AtomicUsize::new(0);
        for stream in listener.incoming().flatten() {
            let n = count.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || answer(stream, does, n));
        }
    });
    url
}

fn answer(mut stream: TcpStream, does: Does, n: usize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    let mut authorization = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) < 3 {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = value.trim().to_owned();
            }
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).unwrap();
    if let Does::Bytes(body) = does {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        return;
    }
    let (status, body) = match does {
        Does::Guarded if authorization != format!("Bearer {TOKEN}") => (401, "who are you?"),
        Does::Ill => (500, "the disk is full"),
        _ if first.contains("/api/v1/query ") => (200, GREETING),
        _ if first.contains("/api/v1/label/") => (200, r#"{"status":"success","data":[]}"#),
        Does::Say(status, body) => (status, body),
        Does::Wait(time) => {
            std::thread::sleep(time);
            (200, MATRIX)
        }
        Does::Half if n.is_multiple_of(2) => (503, r#"{"status":"error","error":"too many queries"}"#),
        Does::Half | Does::Guarded => (200, MATRIX),
        Does::HangUp | Does::Down | Does::Bytes(_) => (200, ""),
    };
    let length = if matches!(does, Does::HangUp) && body.is_empty() { 100 } else { body.len() };
    let _ =
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
}
