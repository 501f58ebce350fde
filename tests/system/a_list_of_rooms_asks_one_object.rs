//! `ListRooms` asks the directory and nobody else, once, however many rooms there are; a list of named rooms has those alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use meridian_tests::app_server::AppServer;
use meridian_tests::rows::sql;
use meridian_tests::scene::Scene;
use serde_json::{Value, json};

/// Rooms in the list.
const ROOMS: usize = 10_000;
/// Makes all but one of them of the one there is, in the directory alone: who asked a room would find none.
const COPIES: &str = "INSERT INTO room (name, entry) \
    WITH RECURSIVE copy (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM copy WHERE i < 9999) SELECT printf('listed-%05d', i), \
    (SELECT entry FROM room LIMIT 1) FROM copy";

/// Databases of rooms' objects.
fn objects(scene: &Scene) -> usize {
    let files = std::fs::read_dir(scene.deployment.objects_dir().join("RoomObject")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "sqlite")).count()
}

fn names(answer: &Value) -> Vec<String> {
    answer["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn of_ten_thousand() {
    let scene = Scene::alone(0).await.unwrap();
    let server = AppServer::of(&scene).unwrap();
    server.ask("CreateRoom", json!({ "name": scene.room, "emptyTimeout": 3600 })).await.unwrap();
    let (deployment, room) = (scene.deployment.clone(), scene.room.clone());
    let fill = move || {
        let scene = Scene { deployment, room };
        let mut stack = scene.deployment.stack();
        stack.edge().process.kill();
        assert_eq!(sql(&scene, "DirectoryObject", "room", COPIES).1, 9_999);
        stack.edge().restart()
    };
    tokio::task::spawn_blocking(fill).await.unwrap().unwrap();

    let before = objects(&scene);
    let all = names(&server.ask("ListRooms", json!({})).await.unwrap());
    assert_eq!(all.len(), ROOMS);
    assert!(all.is_sorted() && all.contains(&scene.room) && all.contains(&"listed-09999".to_owned()));
    let some = json!({ "names": ["listed-00007", scene.room, "nobody's", "listed-09999"] });
    let mut wanted = vec!["listed-00007".to_owned(), "listed-09999".to_owned(), scene.room.clone()];
    wanted.sort();
    assert_eq!(names(&server.ask("ListRooms", some).await.unwrap()), wanted);
    assert_eq!(objects(&scene), before, "a room was asked");
}
