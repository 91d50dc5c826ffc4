-- Run once, when the database is made: a role that owns the tables, and one that serves.
\getenv owner_password OWNER_PASSWORD
\getenv server_password SERVER_PASSWORD
CREATE ROLE rapport_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE rapport LOGIN PASSWORD :'server_password';
CREATE DATABASE rapport OWNER rapport_owner;
