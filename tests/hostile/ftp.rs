//! FTP: the listing, by MLSD or LIST, says what it likes.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{CONTENT, Kind, Scene, entries, is_directory};

/// How listings are given.
#[derive(Clone, Copy)]
enum Form {
    Machine,
    Long,
}

async fn start(form: Form) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // The client goes away when it likes.
            tokio::spawn(async move { drop(serve(socket, form).await) });
        }
    });
    format!("ftp://me:secret@127.0.0.1:{port}/")
}

async fn serve(socket: TcpStream, form: Form) -> std::io::Result<()> {
    let mut control = BufReader::new(socket);
    let (mut data, mut here, mut line): (Option<TcpListener>, Vec<u8>, Vec<u8>) = (None, b"/".to_vec(), Vec::new());
    control.write_all(b"220 hello\r\n").await?;
    loop {
        line.clear();
        if control.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let text = line.trim_ascii_end().to_vec();
        let (verb, argument) = text.split_at(text.iter().position(|&b| b == b' ').unwrap_or(text.len()));
        let argument = argument.strip_prefix(b" ").unwrap_or_default();
        let path = if argument.is_empty() { here.clone() } else { argument.to_vec() };
        let machine = matches!(form, Form::Machine);
        let reply: &[u8] = match verb {
            b"USER" => b"331 password?\r\n",
            b"PASS" => b"230 welcome\r\n",
            b"FEAT" if machine => b"211-so:\r\n SIZE\r\n MLST type*;size*;modify*;UNIX.mode*;\r\n211 end\r\n",
            b"FEAT" => b"211-so:\r\n SIZE\r\n211 end\r\n",
            b"SYST" => b"215 UNIX Type: L8\r\n",
            b"PWD" => b"257 \"/\" is it\r\n",
            b"TYPE" | b"OPTS" => b"200 fine\r\n",
            b"CWD" if is_directory(&path) => {
                here = path;
                b"250 fine\r\n"
            }
            b"CWD" => b"550 not a directory\r\n",
            b"SIZE" if !is_directory(&path) => b"213 4\r\n",
            b"MLST" if machine && is_directory(&path) => {
                b"250-so:\r\n type=dir;modify=20200101000000; x\r\n250 end\r\n"
            }
            b"MLST" if machine => {
                b"250-so:\r\n type=file;size=4;modify=20200101000000;UNIX.mode=6755; x\r\n250 end\r\n"
            }
            b"EPSV" => {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let port = listener.local_addr()?.port();
                data = Some(listener);
                control.write_all(format!("229 there (|||{port}|)\r\n").as_bytes()).await?;
                continue;
            }
            b"MLSD" | b"LIST" | b"RETR" => {
                let bytes = match verb {
                    b"RETR" => CONTENT.to_vec(),
                    b"LIST" => listing(path.strip_prefix(b"-a ").unwrap_or(&path), Form::Long),
                    _ => listing(&path, Form::Machine),
                };
                control.write_all(b"150 here it comes\r\n").await?;
                let Some(listener) = data.take() else { return Ok(()) };
                let (mut socket, _) = listener.accept().await?;
                socket.write_all(&bytes).await?;
                b"226 done\r\n"
            }
            _ => b"500 what?\r\n",
        };
        control.write_all(reply).await?;
    }
}

fn listing(dir: &[u8], form: Form) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, kind) in entries(dir) {
        let (fact, letter, target) = match kind {
            Kind::File => ("file".to_owned(), "-", String::new()),
            Kind::Directory => ("dir".to_owned(), "d", String::new()),
            Kind::Link(target) => (format!("OS.unix=slink:{target}"), "l", format!(" -> {target}")),
        };
        match form {
            Form::Machine => {
                lines.extend(format!("type={fact};size=4;modify=20200101000000;UNIX.mode=6755; ").as_bytes());
                lines.extend(name);
            }
            Form::Long => {
                lines.extend(format!("{letter}rwsr-sr-x 1 me us 4 Jan  1  2020 ").as_bytes());
                lines.extend(name);
                lines.extend(target.as_bytes());
            }
        }
        lines.extend(b"\r\n");
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_an_ftp_server_stay_below_the_destination() {
    for form in [Form::Machine, Form::Long] {
        Scene::new().names_stay_below(&start(form).await, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_ftp_server_lead_nowhere() {
    for form in [Form::Machine, Form::Long] {
        Scene::new().links_lead_nowhere(&start(form).await, None).await;
    }
}
