//! A server that takes uploads, on tokio: what a client has not sent to its end never has a name.
//!
//! Each upload is a length, an end of line and that many bytes. A client that hangs up in the middle, or that
//! is given up, leaves nothing; and a new index comes into force together with what it names, or not at all.

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use steadfast::ErrorKind;
use steadfast::nonblocking::Root;
use steadfast::publish::{FileOptions, Target};
use steadfast::workspace::Workspace;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::io::{BufReader, ReadBuf, duplex};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const LARGE: usize = 3_000_000;

/// As many bytes as were announced. A connection that ends early looks like any end, and is an error here.
struct Exactly<R> {
    reader: R,
    left: usize,
}

impl<R: AsyncRead + Unpin> AsyncRead for Exactly<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let room = into.remaining().min(self.left);
        let mut some = ReadBuf::new(into.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.reader).poll_read(cx, &mut some))?;
        let n = some.filled().len();
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= n;
        into.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// Reads the length that a client announces, and gives a reader for what comes after.
async fn announced(connection: impl AsyncRead + Unpin) -> Result<impl AsyncRead + Unpin> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    // Nobody has to take a first line without end.
    (&mut reader).take(32).read_line(&mut line).await?;
    let left = line.trim().parse()?;
    Ok(Exactly { reader, left })
}

/// Takes one upload as a new file.
async fn receive(root: &Root, name: &str, connection: impl AsyncRead + Unpin) -> Result<()> {
    let upload = announced(connection).await?;
    let options = FileOptions::new().target(Target::CreateNew);
    root.write_from(&options, name, upload).await?;
    Ok(())
}

/// Takes one upload as the index, in a transaction that makes the new files current.
async fn publish(
    root: &Root,
    names: Vec<String>,
    connection: impl AsyncRead + Unpin,
) -> Result<()> {
    let upload = announced(connection).await?;
    root.run_from(upload, move |root, index| {
        let workspace = Workspace::open(root)?;
        let mut tx = workspace.begin();
        tx.create_dir_all("current");
        for name in names {
            tx.rename(&name, format!("current/{name}"));
        }
        tx.write_from("current/index", index)?;
        tx.commit()?;
        workspace.close()
    })
    .await?;
    Ok(())
}

/// A client that announces one length and sends as much as it likes, then hangs up.
fn client(announced: usize, sent: usize) -> impl AsyncRead + Unpin + Send + 'static {
    let (mut here, there) = duplex(4096);
    tokio::spawn(async move {
        // Who is not listened to any more goes home.
        let _ = here.write_all(format!("{announced}\n").as_bytes()).await;
        let _ = here.write_all(&vec![b'x'; sent]).await;
    });
    there
}

/// What is in the directory, but for the state of workspaces.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != ".steadfast" {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

async fn serve(dir: &Path) -> Result<()> {
    let root = Root::open(dir).await?;

    // Many at once; one of them hangs up.
    let mut uploads = Vec::new();
    for n in 0..8 {
        let (root, sent) = (root.clone(), if n == 5 { LARGE / 2 } else { LARGE });
        uploads.push(tokio::spawn(async move {
            receive(&root, &format!("part-{n}"), client(LARGE, sent)).await
        }));
    }
    let mut complete = Vec::new();
    for (n, upload) in uploads.into_iter().enumerate() {
        match upload.await? {
            Ok(()) => complete.push(format!("part-{n}")),
            Err(error) => {
                let error = error.downcast::<steadfast::Error>()?;
                assert_eq!((n, error.kind()), (5, ErrorKind::Source));
                println!("refused: {error}");
            }
        }
    }
    assert_eq!(names(dir)?, complete);

    // One that never ends is given up: its future is dropped, wherever it is.
    let (mut slow, connection) = duplex(4096);
    let upload = tokio::spawn({
        let root = root.clone();
        async move { receive(&root, "slow", connection).await }
    });
    slow.write_all(format!("{LARGE}\n").as_bytes()).await?;
    slow.write_all(&[b'x'; 100_000]).await?;
    upload.abort();
    assert!(upload.await.is_err_and(|e| e.is_cancelled()));

    // All that was sent, under its index. A client that hangs up before its end changes nothing.
    let (mut dying, connection) = duplex(4096);
    dying.write_all(b"1000\nhalf of it").await?;
    let giving_up = tokio::spawn({
        let (root, names) = (root.clone(), complete.clone());
        async move { publish(&root, names, connection).await }
    });
    tokio::task::yield_now().await;
    giving_up.abort();
    assert!(giving_up.await.is_err_and(|e| e.is_cancelled()));
    publish(&root, complete, client(5, 5)).await?;
    Ok(())
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(serve(dir.path()))?;
    // It ends when all that was given up is cleared away.
    drop(runtime);
    assert_eq!(names(dir.path())?, ["current"]);
    let current = names(&dir.path().join("current"))?;
    assert_eq!(current.len(), 8, "seven parts and the index");
    assert_eq!(std::fs::read(dir.path().join("current/index"))?, b"xxxxx");
    println!("published: {}", current.join(" "));
    Ok(())
}
